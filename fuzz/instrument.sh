#!/bin/sh
# The RUSTC_WORKSPACE_WRAPPER of `cargo xtask fuzz`: compiles the workspace's own crates, and no others, with libFuzzer's coverage.
# usage: instrument.sh RUSTC ARGUMENTS
case " $* " in
*" build_script_build "* | *" proc-macro "* | *" --print"*) exec "$@" ;;
esac
exec "$@" -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
