#!/usr/bin/env bash
# Find a Chromium for the browser tests, or install one. Usage: ensure_chromium.sh PYTHON
set -euo pipefail
python=$1

for name in "${MSPECKV_CHROMIUM:-}" chromium chromium-browser google-chrome; do
  if [ -n "$name" ] && found=$(command -v "$name"); then
    echo "Chromium: $found"
    exit 0
  fi
done

as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
if command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then
  echo "Chromium: installing the system's package"
  if "${as_root[@]}" apt-get update -q \
    && "${as_root[@]}" apt-get install -q -y --no-install-recommends chromium fonts-dejavu-core \
    && command -v chromium >/dev/null; then
    exit 0
  fi
fi

echo "Chromium: trying Playwright's own build"
if "$python" -m playwright install chromium; then exit 0; fi

echo "Chromium is missing, and the browser tests need it. Install it (Debian, Ubuntu:" >&2
echo "sudo apt-get install chromium) or set MSPECKV_CHROMIUM to one, then run make again." >&2
exit 1
