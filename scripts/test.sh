#!/usr/bin/env bash
# All checks of the project, each one even if an earlier one failed; the exit code tells of any failure.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
PATH=$PWD/.venv/bin:$PATH
status=0

check() {
    echo "== $*"
    "$@" || status=1
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
    [ "$code" = 0 ] || status=1
}

check ruff check --quiet
check ruff format --quiet --check
check mypy
check lint-imports --no-logo
tests "not live" --numprocesses=2
check python -m tests.simulator --schedules 20000
# One after another: these look at time-outs of real servers, on a machine that may have two cores.
tests live --durations=15
exit $status
