#!/usr/bin/env bash
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_run.sh" landform_retrieval vlm2vec-v2.0 -- "$@"
