"""Sending a request where the decision says: the functions applications call, and the endpoint in front.

request.py    what the caller wants, normalised          (pure)
paths.py      an attempt as an HTTP call                  (pure)
classify.py   an HTTP answer as success or failure kind   (pure)
substance.py  whether an answer says what was asked for   (pure)
opening.py    a stream's beginning, until it delivers     (pure)
tail.py       the rest of a stream, and what breaks it    (pure)
parity.py     what the gateway moves, put back            (pure)
sending.py    one request on its way: its policy, its permits, its records, its decision or error
gates.py      one gate per process
failures.py   failure kinds as errors and HTTP statuses   (pure)
failing.py    the error for a request nobody answered     (pure)
senders/      the only code that touches sockets: httpx, aiohttp
within.py     a time limit on what a task awaits
exchange.py   one attempt performed, synchronously and asynchronously
invoke.py     invoke_llm, ainvoke_llm, feature_flags
streams.py    a stream as an iterator of chunks
passing.py    a stream as the bytes it came in, to an ASGI server
relaying.py   the same, pulled by whoever reads it
wrapping.py   wrap(old_function)
completions.py  requests and answers of the endpoint, without a server (pure)
endpoint.py   the OpenAI-compatible ASGI app
inprocess.py  the same answers without a server: what the transports run
reporting.py  one line in the log, and a value for observers, for each request
"""
