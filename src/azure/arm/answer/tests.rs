//! ARM's own texts.
