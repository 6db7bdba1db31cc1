"""The door: JSON-RPC 2.0, one JSON text a line, over a Unix socket.

`jsonrpc` is the protocol without I/O, `server` serves it under trio, `client` is the blocking end that `sd`
uses. What may be called is not known here: the server is given one function, `dispatch(method, params)`.
"""
