from __future__ import annotations

import json

import pytest

from marsretrieval.datasets.download import find_source
from marsretrieval.errors import UnknownNameError, UsageError


def test_names() -> None:
    assert find_source("paired-image-text").variant == "frozen"
    assert find_source("Mars-VL-Pairs", "frozen").repository == "Cerru02/Mars-VL-Pairs-MTEB"
    with pytest.raises(UnknownNameError, match="Did you mean paired"):
        find_source("pared")
    with pytest.raises(UsageError, match="frozen, whole, published"):
        find_source("paired", "best")
    with pytest.raises(UsageError, match="has no variants"):
        find_source("landform", "whole")


def test_every_pinned_revision_is_a_commit() -> None:
    for name, variant in (("paired", "whole"), ("paired", "frozen"), ("geolocalization", None)):
        revision = find_source(name, variant).revision
        assert revision is not None
        assert len(bytes.fromhex(revision)) == 20
    assert json.dumps(find_source("landform").revision) == "null"
