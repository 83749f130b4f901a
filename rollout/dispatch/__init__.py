"""Sending a request where the decision says: the functions applications call, and the endpoint in front.

request.py    what the caller wants, normalised         (pure)
paths.py      an attempt as an HTTP call                 (pure)
classify.py   an HTTP answer as success or failure kind  (pure)
opening.py    a stream's beginning, until it delivers    (pure)
sending.py    one request on its way: its policy, its records, its decision or error
senders/      the only code that touches sockets: httpx, aiohttp
exchange.py   one attempt performed, synchronously and asynchronously
invoke.py     invoke_llm, ainvoke_llm, feature_flags
streams.py    a stream as an iterator of chunks
wrapping.py   wrap(old_function)
endpoint.py   the OpenAI-compatible ASGI app
"""
