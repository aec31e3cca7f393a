#!/bin/sh
# Runs in the builder, as root: compiles std for musl from Debian's rust-web-src and lays it into the sysroot, after
# which `cargo build --target MACHINE-unknown-linux-musl` works as it does after `rustup target add`. MACHINE is this
# machine, or another one that the builder has a cross compiler for.
set -eu
machine=${1:-$(uname -m)}
target=$machine-unknown-linux-musl
sysroot=$(rustc --print sysroot)
lib=$sysroot/lib/rustlib/$target/lib
own=$lib/self-contained # what rustup ships for linking without a musl toolchain: start files, libc, unwinder
cc=$machine-linux-gnu-gcc
gcc=$(dirname "$($cc -print-libgcc-file-name)")
mkdir -p "$own"
cp /usr/lib/"$machine"-linux-musl/*.o /usr/lib/"$machine"-linux-musl/libc.a "$own"
cp "$gcc"/crtbegin.o "$gcc"/crtbeginS.o "$gcc"/crtend.o "$gcc"/crtendS.o "$own"

# std links `unwind`. GCC's unwinder serves, with the one glibc function that it calls; libgcc brings the helpers, such
# as __popcountdi2, that the C code of jemalloc and mimalloc calls.
$cc -specs=/usr/lib/"$machine"-linux-musl/musl-gcc.specs -O2 -fPIC -c /tmp/dl_find_object.c -o /tmp/dl_find_object.o
ar -M <<SCRIPT
create $own/libunwind.a
addlib $gcc/libgcc_eh.a
addlib $gcc/libgcc.a
addmod /tmp/dl_find_object.o
save
end
SCRIPT

# Any crate will do: what is kept is the std that cargo compiles for it. RUSTC_BOOTSTRAP allows -Z on a stable compiler.
export RUSTC_BOOTSTRAP=1
mkdir -p /tmp/seed/src
cd /tmp/seed
echo 'fn main() {}' > src/main.rs
printf '[package]\nname = "seed"\nversion = "0.0.0"\nedition = "2021"\n' > Cargo.toml
export "CARGO_TARGET_$(echo "$target" | tr a-z- A-Z_)_LINKER=$cc"
__CARGO_DEFAULT_LIB_METADATA=stablestd RUSTFLAGS='-Cforce-unwind-tables=yes -Cembed-bitcode=yes' \
    cargo build --release --target "$target" -Zbuild-std=std,panic_abort,panic_unwind,proc_macro,test \
    -Zbuild-std-features=panic-unwind,backtrace,compiler-builtins-mem
cp target/"$target"/release/deps/*.rlib "$lib"

# cargo compiles every crate with panic=unwind, and rustc then refuses this one for `panic = "abort"`.
rm "$lib"/libpanic_abort-*.rlib
rustc "$sysroot/lib/rustlib/src/rust/library/panic_abort/src/lib.rs" --crate-name panic_abort --crate-type lib \
    --edition 2024 --target "$target" -O -Cpanic=abort -Cembed-bitcode=yes -Cmetadata=stablestd \
    -Cextra-filename=-stablestd -Zforce-unstable-if-unmarked --extern libc="$(ls "$lib"/liblibc-*.rlib)" --out-dir "$lib"
