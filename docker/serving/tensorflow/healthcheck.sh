#!/bin/bash
# Healthy: each model of a models.config has a version that is served. The image has bash and grep,
# and no curl.
#   healthcheck.sh MODELS_CONFIG [PORT]
config=$1
port=${2:-8501}
names=$(grep -oP '^\s*name:\s*"\K[^"]+' "$config") || {
  echo "No models in $config"
  exit 1
}
for name in $names; do
  exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
  printf 'GET /v1/models/%s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$name" >&3
  grep -q '"state": "AVAILABLE"' <&3 || {
    echo "$name is not served"
    exit 1
  }
  exec 3>&-
done
