#!/bin/sh
# Runs a command of this project on an emulated 64-bit Arm processor, to execute the dot-product kernels.
#
#   tests/emulation/arm.sh setup                                  once; about 700 MB under $ARM_HOME
#   tests/emulation/arm.sh python -m pytest tests/refimpl/test_isa.py
#   ARM_CPU=cortex-a53 tests/emulation/arm.sh python -m pytest …  a processor without dot products
#
# Needs an x86-64 Debian machine with apt-get, dpkg, pip, and Debian's archive keyring; no root,
# no binfmt_misc, nothing is installed outside $ARM_HOME. Start it from the project's root.
# Packages come from where this machine's own come from; elsewhere (Ubuntu), name one in DEBIAN_MIRROR.
# ARM_HOME: where everything lies (default ~/.cache/karat24-arm). ARM_CPU: a processor of QEMU's
# (default max; neoverse-n1 is nearest to what servers have). PIP: the pip to use.
set -eu

home=${ARM_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/karat24-arm}
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' \
    'Label: Debian' 'Identifier: Packages' 'Component: main' | head -n 1)}
keyring=${DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
root=$home/root

# apt_for SUITE ARCHITECTURE apt-get-arguments...: an apt of its own, that knows of no installed package.
apt_for() {
    suite=$1 architecture=$2
    shift 2
    state=$home/apt-$suite-$architecture
    mkdir -p "$state/etc/apt.conf.d" "$state/etc/preferences.d" \
        "$state/state/lists/partial" "$state/cache/archives/partial"
    : >"$state/state/status"
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$state/etc/sources.list"
    apt-get -qq -o Dir::Etc="$state/etc" -o Dir::State="$state/state" \
        -o Dir::State::status="$state/state/status" -o Dir::Cache="$state/cache" \
        -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" \
        -o APT::Sandbox::User="$(id -un)" "$@"
}

setup() {
    if [ -z "$mirror" ]; then
        echo "apt knows no source of Debian packages here: run apt-get update, or set DEBIAN_MIRROR" >&2
        exit 1
    fi
    mkdir -p "$home/debs" "$root"
    # QEMU 10: older ones show the host's /proc/cpuinfo, from which LLVM then learns nothing.
    apt_for trixie amd64 update
    (cd "$home/debs" && apt_for trixie amd64 download qemu-user)
    dpkg --fsys-tarfile "$home"/debs/qemu-user_*.deb | tar -x -C "$home" ./usr/bin/qemu-aarch64
    # Python 3.11 and what it needs, unpacked, not installed.
    apt_for bookworm arm64 update
    apt_for bookworm arm64 -y --no-install-recommends --download-only install \
        python3.11 python3-distutils libgomp1 libstdc++6
    for deb in "$home"/apt-bookworm-arm64/cache/archives/*.deb; do
        dpkg -x "$deb" "$root"
    done
    packages=$root/usr/lib/python3/dist-packages
    ${PIP:-python3 -m pip} install --quiet --upgrade --target "$packages" --only-binary=:all: \
        --python-version 3.11 --implementation cp \
        --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux_2_26_aarch64 \
        --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 \
        numpy numba flatbuffers ai-edge-litert tqdm argcomplete onnx onnxruntime hypothesis pytest
    # Child processes are started through this script: the kernel cannot start Arm's programs by itself.
    cat >"$home/python" <<EOF
#!/bin/sh
exec "$home/usr/bin/qemu-aarch64" -cpu "\${ARM_CPU:-max}" -L "$root" "$root/usr/bin/python3.11" "\$@"
EOF
    chmod +x "$home/python"
    echo "import sys; sys.executable = '$home/python'" >"$packages/emulated.pth"
    "$home/python" -c 'import platform, numba; print("emulated", platform.machine(), "with numba", numba.__version__)'
}

case ${1:-} in
setup) setup ;;
python)
    shift
    # Compiled kernels are kept: compiling is what takes time here.
    KARAT24_CACHE_DIR=${KARAT24_CACHE_DIR:-$home/compiled} PYTHONDONTWRITEBYTECODE=1 exec "$home/python" "$@"
    ;;
*) sed -n '2,12s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
