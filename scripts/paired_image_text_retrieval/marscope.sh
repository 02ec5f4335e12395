#!/usr/bin/env bash
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_run.sh" paired_image_text_retrieval marscope -- "$@"
