#!/usr/bin/env bash
# Tags a folder on a Ray cluster: deploy/ray/job.sh VIDEOS LABELS OUTPUT. Run again, it goes on.
set -euo pipefail
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token} # ~/.ray/auth_token, which the head makes
exec openxclip tag "$1" --labels "$2" --output "$3" --model "${MODEL:-openxclip-tiny}" \
  --engine ray --address "${ADDRESS:-127.0.0.1:6390}" --models "${MODELS:-1-2}" --model-cpus "${MODEL_CPUS:-1}" \
  --model-gpus "${MODEL_GPUS:-0}" --part-size "${PART_SIZE:-64}"
