#!/usr/bin/env bash
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_run.sh" landform_retrieval gme -- "$@"
