#!/bin/bash
# Healthy: the server is ready, and each model of its repository has its processes. The server goes on
# saying that it is ready when one has died, for want of memory, say; requests to that model then fail.
#   healthcheck.sh REPOSITORY [PORT]
repository=$1
port=${2:-8000}
curl --fail --silent --show-error "http://127.0.0.1:$port/v2/health/ready" || exit 1
counts=$(cat "$repository"/*/config.pbtxt | grep -oP 'count: \K\d+' | paste -sd+)
wanted=$((counts))
# A name is cut after 15 characters; Z is a process that has ended.
running=$(cat /proc/[0-9]*/stat 2> /dev/null | grep -cP '\(triton_python_b\) [^Z]')
if [ "$running" -lt "$wanted" ]; then
  echo "$running of $wanted processes of models are running"
  exit 1
fi
