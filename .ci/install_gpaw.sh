#!/usr/bin/env bash
# Install GPAW with its PAW data into a Python environment; run again, it changes nothing.
#
#   .ci/install_gpaw.sh [ENVIRONMENT]      default: .venv
#
# It compiles a serial GPAW against libxc and BLAS (a minute). Without root, libxc and a BLAS with
# their headers must be there already (Debian: libxc-dev libopenblas-dev).
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${1:-.venv}
python="$environment/bin/python"
gpaw=26.7.0
data=1.2.1

installed() {
  "$python" - "$gpaw" "$data" <<'END' 2>/dev/null
import sys
from importlib.metadata import version
import _gpaw, gpaw
from gpaw.utilities import h2gpts
sys.exit((version("gpaw"), version("gpaw-data")) != tuple(sys.argv[1:]))
END
}

if installed; then
  echo "GPAW $gpaw with gpaw-data $data is there already"
  exit 0
fi
if ! { echo '#include <xc.h>' | "${CC:-g++}" -E -x c++ - && ldconfig -p | grep -q 'libblas\.so '; } >/dev/null 2>&1; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "GPAW needs a C++ compiler, libxc and BLAS with their headers (Debian: g++ libxc-dev libopenblas-dev)" >&2
    exit 1
  fi
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q g++ libxc-dev libopenblas-dev
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf "mpi = False\ncompiler = 'g++'\nlibraries = ['xc', 'blas']\n" >"$folder/siteconfig.py"
CC=g++ GPAW_CONFIG="$folder/siteconfig.py" \
  "$environment/bin/pip" install --quiet --disable-pip-version-check "gpaw==$gpaw" "gpaw-data==$data"
installed || { echo "GPAW was installed but does not import" >&2; exit 1; }
echo "GPAW $gpaw with gpaw-data $data is installed in $environment"
