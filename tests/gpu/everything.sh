#!/bin/sh
# Everything that wants a CUDA card, in one call of at most nine minutes: the tests of this folder (bytes equal to the
# CPU's, damage, leaks, races, memory), then the figures of every profile and of what else is installed.
#
#     tests/gpu/everything.sh FOLDER        writes FOLDER/tests.txt and FOLDER/card.json
set -u
cd "$(dirname "$0")/../.."
folder=${1:?give a folder for the results}
mkdir -p "$folder"
timeout 190 python3 -m pytest -m gpu tests/gpu -v -rs 2>&1 | tee "$folder/tests.txt"
timeout 345 python3 -c "from pilc_stream.cli import main; main()" bench --card --rounds 3 --record "$folder/card.json"
