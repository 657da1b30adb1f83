#!/bin/sh
# Print the command of a Python that is new enough and complete, or say what is missing and fail.
# PYTHON names one to try first.
check='
import sys
if sys.version_info < (3, 11):
    sys.exit(1)
try:
    import ensurepip, ssl, venv, zlib
except ImportError as lack:
    print(lack.name)
    sys.exit(3)'
lacks=
for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    said=$("$candidate" -c "$check" 2>/dev/null)
    case $? in
    0)
        echo "$candidate"
        exit 0
        ;;
    3) lacks="$lacks $candidate lacks its module $said (on Debian: apt-get install ${candidate##*/}-venv)." ;;
    esac
    if [ "$candidate" = "${PYTHON:-}" ]; then
        echo "PYTHON=$candidate can't be used: looking for another." >&2
    fi
done
echo "Python 3.11 or newer is needed and none was found.$lacks Install one, or name it: make PYTHON=/path/to/python3" >&2
exit 1
