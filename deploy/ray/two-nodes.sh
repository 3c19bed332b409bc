#!/usr/bin/env bash
# A Ray cluster of two nodes on this machine, to try a job on: deploy/ray/two-nodes.sh start | add | stop
# PORT and CPUS (of each node) can be set. "add" starts a further node; "stop" ends the nodes of this PORT and no others.
set -euo pipefail
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token} # nobody else on this machine may use the cluster
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=${RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S:-0} # "stop" waits for no job
port=${PORT:-6390}
cpus=${CPUS:-2}
address="127.0.0.1:$port"
nodes=${TMPDIR:-/tmp}/openxclip-ray-$(id -u)-$port # a file for each node: the id of its process

node() { # NAME OPTIONS: start a node whose other processes end with the one whose id is kept
  local name=$1 log
  shift
  log=$nodes/$name.log
  setsid nohup ray start "$@" --num-cpus="$cpus" --disable-usage-stats --block >"$log" 2>&1 </dev/null &
  echo $! >"$nodes/$name.pid"
  until grep -q -- "--block" "$log"; do # the last lines that it writes
    kill -0 $! 2>/dev/null || { cat "$log" >&2 && rm "$nodes/$name.pid" && exit 1; }
    sleep 0.2
  done
}

is_running() { # PIDFILE; an id may have gone to another process since
  tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$1")/cmdline" | grep -q "ray start .*$port"
}

running() { # files of the nodes that run, the head last
  local file
  for file in $(ls -r "$nodes"/*.pid 2>/dev/null); do
    if is_running "$file"; then echo "$file"; fi
  done
}

stop() {
  local file
  for file in $(running); do
    kill "$(cat "$file")"
    while is_running "$file"; do sleep 0.2; done
  done
  rm -rf "$nodes"
}

case "${1:-}" in
  start)
    [ -z "$(running)" ] || { echo "a cluster of this script runs at $address; stop it first" >&2 && exit 1; }
    mkdir -p "$nodes"
    [ "$RAY_AUTH_MODE" != token ] || ray get-auth-token --generate >/dev/null # ~/.ray/auth_token, unless it is there
    trap stop EXIT
    node 0-head --head --port="$port" --include-dashboard=false
    node 1-node --address="$address"
    trap - EXIT
    echo "address: $address"
    ;;
  add)
    [ -n "$(running)" ] || { echo "no cluster of this script runs at $address; start it first" >&2 && exit 1; }
    node "$(running | wc -l)-node-$$" --address="$address"
    ;;
  stop) stop ;;
  *) echo "usage: $0 start | add | stop" >&2 && exit 2 ;;
esac
