"""A browser without JavaScript: it follows redirects, keeps cookies and submits forms as they stand in the page."""

from html.parser import HTMLParser
from urllib.parse import parse_qs, urljoin, urlsplit

import requests


class Forms(HTMLParser):
    """The forms of a page: where they go, and what they would send."""

    def __init__(self, page):
        super().__init__()
        self.forms = []
        self.text = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form":
            self.forms.append({"action": attributes.get("action", ""), "fields": [], "buttons": []})
        elif tag in ("input", "button") and self.forms:
            kind = attributes.get("type", "submit" if tag == "button" else "text")
            pair = (attributes.get("name"), attributes.get("value", ""))
            if kind == "submit":
                self.forms[-1]["buttons"].append(pair)
            elif pair[0] and (kind not in ("checkbox", "radio") or "checked" in attributes):
                self.forms[-1]["fields"].append(pair)

    def handle_data(self, data):
        self.text.append(data)


class Browser:
    """What a person uses. Redirects to places outside of the server are where it stops."""

    def __init__(self, server):
        self.server = server
        self.session = requests.Session()
        self.session.headers["Accept"] = "text/html,application/xhtml+xml,*/*;q=0.8"

    def open(self, url):
        """Where the browser ends: a page of the server, or the address outside that it was sent to."""
        return self._follow(self.session.get(url, allow_redirects=False, timeout=30))

    def submit(self, page, button=None, **values):
        """Fills in the only form of the page and presses the button with this value, or the only one there is."""
        forms = Forms(page.text).forms
        assert len(forms) == 1, page.text
        form = forms[0]
        fields = [(name, value) for name, value in form["fields"] if name not in values]
        fields += list(values.items())
        pressed = [pair for pair in form["buttons"] if button is None or pair[1] == button]
        assert len(pressed) == 1, form["buttons"]
        fields += [pair for pair in pressed if pair[0]]
        url = urljoin(page.url, form["action"])
        headers = {"Origin": self.server.url, "Sec-Fetch-Site": "same-origin"}
        return self._follow(
            self.session.post(url, data=fields, headers=headers, allow_redirects=False, timeout=30)
        )

    def sign_in(self, page, email=None, password=None):
        """Signs in on the page that asks for it."""
        variables = self.server.variables
        return self.submit(
            page, email=email or variables["USER_EMAIL"], password=password or variables["USER_PASSWORD"]
        )

    def _follow(self, response):
        for _ in range(10):
            assert response.status_code < 500, response.text
            if response.status_code not in (301, 302, 303, 307, 308):
                return response
            target = urljoin(response.url, response.headers["Location"])
            if not target.startswith(self.server.url + "/"):
                return Outside(target)
            response = self.session.get(target, allow_redirects=False, timeout=30)
        raise AssertionError("the redirects do not end")


class Outside:
    """An address that the server sent the browser to."""

    def __init__(self, url):
        self.url = url
        self.query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def allow(browser, url):
    """Opens an authorization URL, signs in if asked to, says yes if asked to, and returns where that leads."""
    page = browser.open(url)
    if not isinstance(page, Outside) and 'type="password"' in page.text:
        page = browser.sign_in(page)
    if not isinstance(page, Outside):
        page = browser.submit(page, button="approve")
    assert isinstance(page, Outside), page.text
    return page
