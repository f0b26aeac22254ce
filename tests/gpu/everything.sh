#!/bin/sh
# Everything that wants a CUDA card, in one call of at most ten minutes: the tests of this folder (bytes equal to the
# CPU's, damage, leaks, races, memory), then the figures of every profile and of what else is installed.
#
#     tests/gpu/everything.sh FOLDER        writes FOLDER/tests.txt, FOLDER/lossy.json and FOLDER/card.json
set -u
cd "$(dirname "$0")/../.."
folder=${1:?give a folder for the results}
mkdir -p "$folder"
timeout 195 python3 -m pytest -m gpu tests/gpu -v -rs 2>&1 | tee "$folder/tests.txt"
timeout 60 python3 -m pilc_stream.reports.lossy_card "$folder/lossy.json"
timeout 340 python3 -c "from pilc_stream.cli import main; main()" bench --card --rounds 3 --record "$folder/card.json"
