#!/usr/bin/env bash
# All checks of the project, each one even if an earlier one failed; the exit code tells of any failure.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
PATH=$PWD/.venv/bin:$PATH
failed=()

check() {
    echo "== $*"
    "$@" || failed+=("$*")
}

# A test that failed runs once more, alone: a stall of the whole machine looks like a server that hangs.
# What fails again has failed; what passes now stays visible above.
tests() {
    echo "== pytest -m $*"
    pytest -m "$@"
    local code=$?
    if [ "$code" = 1 ]; then
        echo "== once more, what failed"
        pytest -m "$1" --last-failed --last-failed-no-failures none
        code=$?
    fi
    [ "$code" = 0 ] || failed+=("pytest -m $*")
}

check ruff check --quiet
check ruff format --quiet --check
check mypy
check lint-imports --no-logo
tests "not live" --numprocesses=2
# The same schedules each time: what is red was broken by the change. `make nightly` plays fresh ones.
check python -m tests.simulator --seed 0 --schedules 20000
# Two at a time: most of it is waiting for time-outs of real servers. What was too slow for that runs again alone.
tests live --numprocesses=2 --dist=loadfile --no-loadscope-reorder --durations=15
# Last, where a log that was cut still has it.
if [ ${#failed[@]} -gt 0 ]; then
    printf '== FAILED: %s\n' "${failed[@]}"
    exit 1
fi
