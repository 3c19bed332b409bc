#!/usr/bin/env bash
# A Ray cluster of two nodes on this machine, to try a job on: deploy/ray/two-nodes.sh start | stop
set -euo pipefail
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token} # nobody else on this machine may use the cluster
port=${PORT:-6390}
cpus=${CPUS:-2} # of each node
case "${1:-}" in
  start)
    ray start --head --port="$port" --num-cpus="$cpus" --include-dashboard=false --disable-usage-stats
    ray start --address="127.0.0.1:$port" --num-cpus="$cpus" --disable-usage-stats
    echo "address: 127.0.0.1:$port"
    ;;
  stop) ray stop ;;
  *) echo "usage: $0 start | stop" >&2 && exit 2 ;;
esac
