"""Who is who: the cluster's certificate authority, sealed secrets, join tokens and access tokens."""
