#!/usr/bin/env bash
# Chromium for the tests of the web page, from the system's packages, where that is possible. Without it they are skipped.
set -uo pipefail
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" > /dev/null; then exit 0; fi
done
if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "Chromium is not installed: the tests of the web page will be skipped" >&2
  exit 0
fi
apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends chromium fonts-dejavu-core > /dev/null
command -v chromium > /dev/null || echo "Chromium cannot be installed: the tests of the web page will be skipped" >&2
exit 0
