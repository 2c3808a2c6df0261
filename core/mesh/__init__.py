"""The mesh: one TLS port a host, mutual authentication, one channel a connection.

The ALPN name chosen in the handshake is the channel: `http/1.1` carries RPC between agents, `kvorum-raft/1` consensus,
`kvorum-tunnel/1` bytes to a unix socket. A host is known by the common name (CN) of its certificate: its host id.
"""
