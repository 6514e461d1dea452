"""An Event Hubs-compatible server in memory, spoken to by the unchanged azure-eventhub SDK.

No packaged, Docker-free server exists that the real SDK can talk to, so this one implements the part of AMQP 1.0 that
the SDK uses. From the inside out:

    codec.py     AMQP values to bytes and back
    wire.py      sections of a message: batches, broker annotations, bodies
    broker.py    hubs, partitions, positions, consumer groups, epochs, faults: no network
    links.py     what each kind of link does: send, read, request and reply
    frames.py    one connection's byte stream as frames, handshake, heartbeats
    server.py    sessions and links over asyncio, the listener
    embedded.py  the server on a thread of its own, with controls for tests
    __main__.py  the server as a process

It is for one machine: it listens on loopback, accepts any key, keeps everything in memory and forgets nothing until a
hub is deleted. It does not do TLS, WebSockets, Kafka or retention, and creates consumer groups on first use.
"""
