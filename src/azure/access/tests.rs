//! Who we are, against files and a server on loopback.
