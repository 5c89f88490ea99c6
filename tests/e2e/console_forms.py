"""The console's forms, sent as a browser sends them."""

import re
from collections.abc import Mapping

import httpx
from e2e.programs import until


class Browser:
    """A browser in which somebody has signed in: it sends the cookie, and with forms what browsers send."""

    def __init__(self, client: httpx.Client, secret: str) -> None:
        self._client = client
        assert client.post("/console/login", data={"key": secret}).status_code == 303
        page = client.get("/console")
        self.token = re.findall(r'x-csrf-token": "([^"]+)"', page.text)[0]
        self.headers = {"origin": str(client.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}

    def post(self, path: str, fields: Mapping[str, object], **headers: str) -> httpx.Response:
        own = {**self.headers, "x-csrf-token": self.token, "hx-request": "true"}
        return self._client.post(f"/console/actions/{path}", data=fields, headers=own | headers)

    def preview(self, action: str, **fields: object) -> tuple[str, dict[str, list[str]]]:
        """What an action would do, and the fields of the form that has it done."""
        found = self.post(f"{action}/preview", fields)
        assert found.status_code == 200, found.text
        return found.text, hidden_in(found.text)

    def do(self, action: str, why: str = "", **fields: object) -> str:
        """What was written by an action that is previewed and confirmed; again, while the console lags behind."""

        def written() -> str:
            _, form = self.preview(action, **fields)
            done = self.post(action, {**form, "why": why})
            assert done.status_code == 200 or "look at it again" in done.text, done.text
            return done.text if done.status_code == 200 else ""

        return until("the console has heard of the last change", written)


def hidden_in(html: str) -> dict[str, list[str]]:
    """The hidden fields of the forms on a page, but for the token."""
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', html):
        if name != "csrf":
            fields.setdefault(name, []).append(value)
    return fields
