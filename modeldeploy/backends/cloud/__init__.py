"""What the backends of clouds have in common, whatever the cloud."""
