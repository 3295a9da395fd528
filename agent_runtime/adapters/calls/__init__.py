# SPDX-License-Identifier: Apache-2.0
"""The calls by name: one table for all wires that carry messages of JSON (WebSocket, ZeroMQ).

    client ──frames──► Session ──table──► Core
           ◄─frames──

- `table`: what can be called. `parameters`: with what, strict and closed; `parsing` reads them. `tasks`, `work`: what
  is done in the same way over HTTP (and gRPC). `errors`: from errors to frames. `session`: one connection, whatever
  carries its frames.

A client sends `{"id", "call", "params"}`, with an id of its own choice, as many at once as it likes; the frames that
answer have the same id. What has one answer ends with `{"id", "result"}`; what has many with `{"id", "item"}`, each of
which costs one credit, and at the end `{"id", "end"}`. Either may end with `{"id", "error"}`. Nothing that a client
sends ends the connection, and nothing that it does not read is kept without bound: items are fetched when there is
credit and the connection takes them, and while too many answers wait to be taken no calls are read.

When a connection goes, what waits for something is cancelled, and tasks that were claimed for an answer that could not
be sent are given back. What changes something is finished. A stream is resumed on another connection by the offset of
the last item that arrived.
"""
