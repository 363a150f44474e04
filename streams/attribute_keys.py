"""The attributes that processors read whatever the settings, and on which kinds of spans an attribute is read."""

SERVICE_NAME = "service.name"
SERVICE_NAMESPACE, SERVICE_INSTANCE = "service.namespace", "service.instance.id"
PEER_SERVICE, SERVER_ADDRESS = "peer.service", "server.address"
PEER_HOST, PEER_PORT = "network.peer.address", "network.peer.port"
CALLEE = (PEER_SERVICE, SERVER_ADDRESS, PEER_HOST, PEER_PORT)
"""Where a database's name is looked for (Tempo SG-14)."""
VIRTUAL_NODE = "virtual_node"

RESOURCE_ONLY, CLIENT_SIDE, SERVER_SIDE, OTHER_SIDE = 0, 1, 2, 4
"""Bits of the span kinds on which an attribute is read; on resources it always is."""
ANY_SIDE = CLIENT_SIDE | SERVER_SIDE | OTHER_SIDE
