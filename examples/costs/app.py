from decimal import Decimal
from wsgiref.simple_server import make_server

PRICE_PER_WORD = Decimal("0.0002")  # no float: amounts are exact
REPLY = "Forty-two is the answer"


def app(environ, start_response):
    # WSGI has no trailers: find out the cost first, and send it as a header.
    cost = PRICE_PER_WORD * len(REPLY.split())
    start_response("200 OK", [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Tollgate-Cost", f"{cost:f}"),
    ])
    return [f"{REPLY}\n".encode()]


make_server("127.0.0.1", 3000, app).serve_forever()
