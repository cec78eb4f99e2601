"""Our own fleet: devices that run ``modeldeploy.edge_agent`` and pull what they are to run from a directory, a hub or an object store."""
