"""Requests of other sites, under other names and without the token are refused."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from marsretrieval.web import security
from marsretrieval.web.app import create_app

STORE = "/api/v1/store"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8765", "", "[::2]:8765"])
def test_other_host_names_are_refused(client, host):
    response = client.get(STORE, headers={"host": host})
    assert response.status_code == 421
    assert response.json()["code"] == "host"


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:1", "[::1]:8765", "LOCALHOST"])
def test_loopback_names_are_accepted(client, host):
    assert client.get(STORE, headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_requests_of_other_sites_are_refused(client, headers):
    response = client.post("/api/v1/searches", json={"text": ["dunes"]}, headers=headers)
    assert response.status_code == 403
    assert client.get(STORE, headers=headers).status_code == 403


def test_requests_of_the_page_are_accepted(client):
    headers = {"origin": "http://127.0.0.1:8765", "sec-fetch-site": "same-origin"}
    assert client.get(STORE, headers=headers).status_code == 200
    assert "access-control-allow-origin" not in client.get(STORE, headers=headers).headers


def test_responses_forbid_scripts_and_frames_of_others(client):
    for path in (STORE, "/", "/static/nothing", "/api/v1/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert client.get(STORE, headers={"host": "x"}).headers["x-frame-options"] == "DENY"


def test_a_token_is_required_if_set(server):
    client = TestClient(create_app(server, token="secret"), base_url="http://127.0.0.1")
    assert client.get(STORE).status_code == 401
    assert client.get(STORE, headers={"authorization": "Bearer secre"}).status_code == 401
    assert client.get(STORE, headers={"authorization": "Bearer secret"}).status_code == 200
    assert client.get(f"{STORE}?token=secret").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py",
        "/api/v1/tiles/..%2f..%2fetc%2fpasswd/image", "/static//etc/passwd",
    ],
)  # fmt: skip
def test_files_outside_the_page_are_not_served(client, path):
    assert client.get(path).status_code == 404


def test_large_bodies_are_refused_while_they_are_read(client: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(security, "MAX_BODY", 1000)
    monkeypatch.setattr(security, "MAX_UPLOAD", 3000)
    url = "/api/v1/searches"
    kind = {"content-type": "application/json"}
    response = client.post(url, content=b" " * 1001, headers=kind)
    assert response.status_code == 413 and response.json()["code"] == "too-large"
    response = client.post(
        url, content=(b" " * 500 for _ in range(3)), headers={"content-type": "application/json"}
    )
    assert response.status_code == 413
    files = [("pictures", ("a.png", b"x" * 1600, "image/png"))] * 2
    response = client.post("/api/v1/pictures", files=files)
    assert response.status_code == 413 and "images" in response.json()["remedy"]
