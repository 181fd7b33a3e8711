/* Loaded first by avx2.py: answers the cpuid and xgetbv instructions that avx2.py replaced by breakpoints, without
   what came after AVX2 and FMA. What is left of a replaced instruction behind the breakpoint says which it was. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

enum { CPUID_REST = 0xA2, XGETBV_REST = 0x01 };

static void without_avx512(uint32_t leaf, uint32_t subleaf, uint32_t *eax, uint32_t *ebx, uint32_t *ecx,
                           uint32_t *edx)
{
    if (leaf == 7 && subleaf == 0) {
        *ebx &= ~0xDC230000u; /* AVX512 F, DQ, IFMA, PF, ER, CD, BW, VL */
        *ecx &= ~0x00005942u; /* AVX512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ; GFNI */
        *edx &= ~0x03C0010Cu; /* AVX512 4VNNIW, 4FMAPS, VP2INTERSECT, FP16; AMX */
    } else if (leaf == 7 && subleaf == 1) {
        *eax &= ~0x00A00030u; /* AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA */
        *edx &= ~0x00080530u; /* AVX-VNNI-INT8, AVX-NE-CONVERT, AMX-COMPLEX, AVX-VNNI-INT16, AVX10 */
    } else if (leaf == 0xD && subleaf == 0)
        *eax &= ~0x000600E0u; /* the state of AVX512 and AMX */
    else if (leaf == 1 && (*eax & 0x0FF00F00u) >= 0x00A00F00u && *ecx & bit_AVX)
        *eax = 0x00A00F11u; /* AMD's Zen 4 and later say Zen 3, the last one without AVX512 */
}

static void answer(int signal, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *rest = (const uint8_t *)registers[REG_RIP];
    uint32_t eax = 0, ebx = 0, ecx = (uint32_t)registers[REG_RCX], edx = 0;
    (void)signal, (void)info;
    if (rest[0] == CPUID_REST) {
        uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = ecx;
        __cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
        without_avx512(leaf, subleaf, &eax, &ebx, &ecx, &edx);
        registers[REG_RBX] = ebx, registers[REG_RCX] = ecx;
        registers[REG_RIP] += 1;
    } else if (rest[0] == XGETBV_REST) {
        __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(ecx));
        if (ecx == 0)
            eax &= ~0x000600E0u;
        registers[REG_RIP] += 2;
    } else
        __builtin_trap(); /* a breakpoint that nobody here wrote */
    registers[REG_RAX] = eax, registers[REG_RDX] = edx;
}

__attribute__((constructor(101))) static void install(void)
{
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    sigaction(SIGTRAP, &action, 0);
}
