import re
from urllib.parse import unquote
from wsgiref.simple_server import make_server


def app(environ, start_response):
    user_id = environ.get("HTTP_X_USER_ID", "")  # what to store; empty for nobody
    encoded = environ.get("HTTP_X_USER_NAME", "")
    try:
        if re.search("%(?![0-9A-Fa-f]{2})", encoded):
            raise ValueError
        name = unquote(encoded, errors="strict")
    except ValueError:
        start_response("400 Bad Request", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"not from the gateway\n"]
    balance = environ.get("HTTP_X_USER_BALANCE", "")
    headers = [("Content-Type", "text/plain; charset=utf-8")]
    if environ["REQUEST_METHOD"] == "POST":  # a call that costs the user money
        headers.append(("Tollgate-Balance", "changed"))
    start_response("200 OK", headers)
    return [f"{user_id} is {name} and has {balance}\n".encode()]


make_server("127.0.0.1", 3000, app).serve_forever()
