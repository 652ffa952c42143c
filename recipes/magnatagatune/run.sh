#!/usr/bin/env bash
exec "$(dirname "$0")/../clmr/run.sh" magnatagatune "$@"
