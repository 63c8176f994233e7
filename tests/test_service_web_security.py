"""The page and the metrics behind TLS and tokens: the same configuration as gRPC's port, the same answers to who has none."""

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from running_service import Running
from test_service_security import TOKENS, Site, serve, site, sums  # noqa: F401  a fixture

PATHS = ["/", "/metrics", "/status.json"]
SECRETS = {token["name"]: token["secret"] for token in TOKENS}


@pytest.fixture(scope="module")
def tls(site: Site) -> Iterator[Running]:  # noqa: F811
    with serve(site, http=True, tls=site.tls) as running:
        yield running


@pytest.fixture(scope="module")
def mutual(site: Site) -> Iterator[Running]:  # noqa: F811
    with serve(site, http=True, tls={**site.tls, "client_ca": "ours-ca.pem"}) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(site: Site) -> Iterator[Running]:  # noqa: F811
    with serve(site, http=True, tokens=TOKENS) as running:
        for model, name in (("tagger", "cms"), ("featurizer", "dune")):
            sums(running.address, model, f"Bearer {SECRETS[name]}")
        yield running


def get(url: str, authorization: str = "", context: ssl.SSLContext | None = None) -> tuple[int, bytes, str]:
    """Status, body, and how to authenticate."""
    request = urllib.request.Request(url, headers={"Authorization": authorization} if authorization else {})
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            return answer.status, answer.read(), ""
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers.get("WWW-Authenticate", "")


def password(secret: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{secret}".encode()).decode()


def context_of(site: Site, authority: str, client: str = "") -> ssl.SSLContext:  # noqa: F811
    context = ssl.create_default_context(cafile=site.folder / f"{authority}-ca.pem")
    if client:
        context.load_cert_chain(site.folder / f"{client}-client.pem", site.folder / f"{client}-client.key")
    return context


# TLS -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PATHS, "/v2/health/ready"])
def test_the_page_is_served_to_who_trusts_the_authority(tls: Running, site: Site, path: str):  # noqa: F811
    url = tls.http.replace("http://127.0.0.1", "https://localhost")
    assert get(url + path, context=context_of(site, "ours"))[0] == 200


def test_neither_strangers_nor_plain_http_get_anything(tls: Running, site: Site):  # noqa: F811
    url = tls.http.replace("http://127.0.0.1", "https://localhost")
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        get(url, context=context_of(site, "strangers"))
    with pytest.raises(OSError):
        get(tls.http)
    assert get(url, context=context_of(site, "ours"))[0] == 200, "and the page goes on"


def test_with_an_authority_for_clients_the_page_wants_their_certificate(mutual: Running, site: Site):  # noqa: F811
    url = mutual.http.replace("http://127.0.0.1", "https://localhost")
    assert get(url, context=context_of(site, "ours", "ours"))[0] == 200
    for client in ("", "strangers"):
        with pytest.raises(OSError):
            get(url, context=context_of(site, "ours", client))


# Tokens --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", ["Bearer {}", "password"])
def test_any_token_opens_the_page_as_a_bearer_or_as_a_password(guarded: Running, form: str, path: str):
    for secret in SECRETS.values():
        authorization = password(secret) if form == "password" else form.format(secret)
        assert get(guarded.http + path, authorization)[0] == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "authorization", ["", "Bearer wrong-0123456789abcdef", password("wrong"), "Basic %%%", "Digest x"]
)
def test_without_a_token_the_page_is_closed_and_browsers_ask_for_one(guarded: Running, authorization: str, path: str):
    status, body, how = get(guarded.http + path, authorization)
    assert status == 401
    assert b"token" in body
    assert how.startswith("Basic realm=")


def test_load_balancers_need_no_token(guarded: Running):
    assert get(guarded.http + "/v2/health/ready")[0] == get(guarded.http + "/v2/health/live")[0] == 200


def test_pictures_of_jets_are_for_those_whose_model_tagged_them(guarded: Running):
    seen = {
        name: json.loads(get(guarded.http + "/status.json", f"Bearer {secret}")[1])["samples"]
        for name, secret in SECRETS.items()
    }
    assert [sample["model"] for sample in seen["cms"]] == [sample["model"] for sample in seen["dune"]] == ["tagger"]
    assert seen["operator"] == []
