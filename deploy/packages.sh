# shellcheck shell=bash
# Debian packages, in one place. Sourced by deploy/quickstart.sh and tests/run.sh.
#
#   muster_install_packages build     what building and running needs
#   muster_install_packages test      and what the tests need besides
#   muster_install_packages bench     and what installing the peers needs

MUSTER_BUILD_PACKAGES="gcc libc6-dev cmake ninja-build pkg-config git libuv1-dev libprotobuf-c-dev \
protobuf-c-compiler libsqlite3-dev libmicrohttpd-dev libjansson-dev libcurl4-openssl-dev libssl-dev \
libdnnl-dev libxxhash-dev zlib1g-dev libcmocka-dev python3 curl"
MUSTER_TEST_PACKAGES="g++ clang clang-tidy libclang-rt-14-dev universal-ctags shellcheck \
iproute2 nftables valgrind"

muster_install_packages() {
    local wanted=$MUSTER_BUILD_PACKAGES missing=() package sudo=""
    [ "$1" = test ] && wanted="$wanted $MUSTER_TEST_PACKAGES"
    [ "$1" = bench ] && wanted="$wanted $MUSTER_TEST_PACKAGES python3-venv"
    for package in $wanted; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if ! command -v apt-get >/dev/null; then
        echo "these Debian packages are missing: ${missing[*]}" >&2
        return 69
    fi
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || {
            echo "run as root: apt-get install ${missing[*]}" >&2
            return 69
        }
        sudo=sudo
    fi
    echo "== installing ${#missing[@]} Debian packages: ${missing[*]}"
    $sudo apt-get update -qq >/dev/null || true
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null || {
        echo "apt-get could not install: ${missing[*]}" >&2
        return 69
    }
}
