/* A stand-in for libedgetpu with its entry points: lists devices, and computes every edgetpu-custom-op as
   "each output byte is the input's at the same place, plus one", or looks the outputs up in the file that
   FAKE_EDGETPU_ANSWERS names. FAKE_EDGETPU names what goes wrong.
   Structures are those of TensorFlow Lite's c/common.h (2.5 to 2.19), as far as they are used. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { int size; int data[]; } IntArray;

typedef struct {
  int type;
  unsigned char* data;
  IntArray* dims;
  float scale;
  int32_t zero_point;
  int allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  void* rest[6];
} Tensor;

typedef struct { IntArray *inputs, *outputs, *intermediates, *temporaries; void* user_data; } Node;

struct Context;
typedef struct {
  void* (*init)(struct Context*, const char*, size_t);
  void (*free)(struct Context*, void*);
  int (*prepare)(struct Context*, Node*);
  int (*invoke)(struct Context*, Node*);
  const char* (*profiling_string)(const struct Context*, const Node*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void* external;
  void* async_kernel;
  uint64_t inplace_operator;
} Registration;

struct Delegate;
typedef struct Context {
  size_t tensors_size;
  int (*execution_plan)(struct Context*, IntArray**);
  Tensor* tensors;
  void* implementation;
  int (*resize)(struct Context*, Tensor*, IntArray*);
  void (*report)(struct Context*, const char*, ...);
  int (*add_tensors)(struct Context*, int, int*);
  int (*node)(struct Context*, int, Node**, Registration**);
  int (*replace)(struct Context*, Registration, const IntArray*, struct Delegate*);
} Context;

typedef struct Delegate {
  void* data;
  int (*prepare)(Context*, struct Delegate*);
  void *from_buffer, *to_buffer, *free_buffer;
  int64_t flags;
  void* opaque_builder;
} Delegate;

typedef struct { int type; const char* path; } Device;
static Device devices[] = {{1, "/sys/bus/usb/devices/2-1"}, {0, "/dev/apex_0"}};

static int is(const char* what) {
  const char* wanted = getenv("FAKE_EDGETPU");
  return wanted != NULL && strcmp(wanted, what) == 0;
}

__attribute__((constructor)) static void loaded(void) {
  if (is("kills on load")) *(volatile int*)0 = 0;
  if (is("hangs on load")) for (;;) pause();
}

const char* edgetpu_version(void) {
  return is("old") ? "BuildLabel(COMPILER=stand-in), RuntimeVersion(10)"
                   : "BuildLabel(COMPILER=stand-in), RuntimeVersion(14)";
}

Device* edgetpu_list_devices(size_t* count) {
  *count = is("no device") ? 0 : is("usb only") ? 1 : 2;
  return *count ? devices : NULL;
}

void edgetpu_free_devices(Device* list) { (void)list; }

void edgetpu_verbosity(int level) { (void)level; }

/* The file holds answers, each four counts of bytes and as many bytes: what goes wrong ("" for nothing), the
   output's name, the first input, the output. */
static int answer(Context* context, const char* path, const Tensor* input, Tensor* output) {
  FILE* file = fopen(path, "rb");
  uint32_t size[4];
  int found = 0;
  while (file != NULL && !found && fread(size, 4, 4, file) == 4) {
    char* part[4];
    for (int i = 0; i < 4; i++) {
      part[i] = calloc(1, size[i] + 1);
      if (fread(part[i], 1, size[i], file) != size[i]) return 1;
    }
    found = strcmp(part[1], output->name) == 0 && size[2] == input->bytes && size[3] == output->bytes &&
            memcmp(part[2], input->data, size[2]) == 0;
    if (found && strcmp(part[0], "lost") == 0) {
      context->report(context, "USB transfer error 5 [LibUsbDataIn]");
      return 1;
    }
    if (found && strcmp(part[0], "crashes") == 0) *(volatile int*)0 = 0;
    if (found && strcmp(part[0], "hangs") == 0) for (;;) pause();
    if (found) memcpy(output->data, part[3], size[3]);
    for (int i = 0; i < 4; i++) free(part[i]);
  }
  if (file != NULL) fclose(file);
  if (!found) context->report(context, "no answer for %s", output->name);
  return !found;
}

static int invoke(Context* context, Node* node) {
  if (is("lost")) {
    context->report(context, "USB transfer error 5 [LibUsbDataIn]");
    return 1;
  }
  if (is("crashes")) *(volatile int*)0 = 0;
  if (is("hangs")) for (;;) pause();
  Tensor* input = &context->tensors[node->inputs->data[0]];
  for (int i = 0; i < node->outputs->size; i++) {
    Tensor* output = &context->tensors[node->outputs->data[i]];
    const char* answers = getenv("FAKE_EDGETPU_ANSWERS");
    if (answers != NULL && answer(context, answers, input, output) != 0) return 1;
    if (answers != NULL) continue;
    for (size_t j = 0; j < output->bytes; j++) output->data[j] = input->data[j % input->bytes] + 1;
  }
  return 0;
}

static int nothing(Context* context, Node* node) {
  (void)context, (void)node;
  return 0;
}

static int prepare(Context* context, Delegate* delegate) {
  IntArray* plan;
  if (context->execution_plan(context, &plan) != 0) return 1;
  IntArray* mine = malloc(sizeof(int) * (1 + plan->size));
  mine->size = 0;
  for (int i = 0; i < plan->size; i++) {
    Node* node;
    Registration* registration;
    if (context->node(context, plan->data[i], &node, &registration) != 0) return 1;
    if (registration->custom_name != NULL && strcmp(registration->custom_name, "edgetpu-custom-op") == 0)
      mine->data[mine->size++] = plan->data[i];
  }
  Registration kernel = {.prepare = nothing, .invoke = invoke, .custom_name = "EdgeTpuDelegateForCustomOp"};
  int status = context->replace(context, kernel, mine, delegate);
  free(mine);
  return status;
}

Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report)(const char*)) {
  for (size_t i = 0; i < count; i++)
    if (strcmp(keys[i], "device") == 0 && strcmp(values[i], "usb:9") == 0) {
      report("no such device");
      return NULL;
    }
  Delegate* delegate = calloc(1, sizeof(Delegate));
  delegate->prepare = prepare;
  delegate->flags = 1; /* dynamic tensors allowed: else the custom op is prepared before it is replaced */
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) { free(delegate); }
