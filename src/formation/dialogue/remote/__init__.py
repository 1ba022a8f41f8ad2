"""A side that is a server of the OpenAI protocol.

    side.py         the side: asked for a turn, token by token
    probe.py        what the server can do, asked once before a dialogue begins
    address.py      where it is
    http.py         one request, with a limit on everything
    chat.py         the chat or the text that is asked for
    reply.py        its answers, read strictly; stream.py, in pieces
    spelling.py     the bytes of its tokens

Nothing that a server answers is trusted, and only http.py opens a connection.
"""
