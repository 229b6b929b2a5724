//! The agent's own address: a /32 link-local on `lo`.
//!
//! In: the address. Out: it is there (or gone, for uninstall), by rtnetlink. It is what DNAT points
//! at: local, so no `route_localnet`. No network routes it, yet a neighbour on the node's own link that
//! names this node as its gateway reaches it: to the agent that is an unknown peer. Its scope is
//! `host`, so that the kernel never picks it as source address towards a pod (with `global` it
//! would, on nodes whose pod interfaces have no address of their own).
//! Invariant: never touches another address, nor ours on another interface.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use tokio_util::task::AbortOnDropHandle;

use super::InterceptError;

/// `lo` has index 1 in every network namespace.
const LO: u32 = 1;
const EEXIST: i32 = -17;

/// Puts the address on `lo` if it is not there. To be called before the listener binds.
pub async fn claim_address(address: Ipv4Addr) -> Result<(), InterceptError> {
    Addresses::open()?.claim(address).await.map(drop)
}

/// One rtnetlink conversation about addresses.
#[derive(Debug)]
pub struct Addresses {
    handle: Handle,
    _connection: AbortOnDropHandle<()>,
}

impl Addresses {
    /// Opens a socket.
    pub fn open() -> Result<Self, InterceptError> {
        let failed = |error: std::io::Error| InterceptError::Netlink {
            what: "addresses",
            why: error.to_string(),
        };
        let (connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
        Ok(Self {
            handle,
            _connection: AbortOnDropHandle::new(tokio::spawn(connection)),
        })
    }

    /// Adds the address if it is absent; whether it was.
    pub async fn claim(&self, address: Ipv4Addr) -> Result<bool, InterceptError> {
        let failed = |why| InterceptError::Address { address, why };
        match self
            .list(Some(address))
            .await?
            .first()
            .map(|found| found.header.index)
        {
            Some(LO) => return Ok(false),
            Some(other) => {
                let why = format!(
                    "interface {other} has it already; choose another with --agent-address"
                );
                return Err(failed(why));
            }
            None => {}
        }
        let mut add = self.handle.address().add(LO, IpAddr::V4(address), 32);
        add.message_mut().header.scope = AddressScope::Host;
        match add.execute().await {
            Ok(()) => Ok(true),
            Err(rtnetlink::Error::NetlinkError(error))
                if error.code.is_some_and(|code| code.get() == EEXIST) =>
            {
                Ok(false)
            }
            Err(error) => Err(failed(format!("{error}; does the agent have NET_ADMIN?"))),
        }
    }

    /// Whether any interface has the address.
    pub async fn has(&self, address: Ipv4Addr) -> Result<bool, InterceptError> {
        Ok(!self.list(Some(address)).await?.is_empty())
    }

    /// Removes exactly this /32 from `lo`; whether it was there.
    pub async fn release(&self, address: Ipv4Addr) -> Result<bool, InterceptError> {
        let mut removed = false;
        for found in self.list(Some(address)).await? {
            if found.header.index == LO && found.header.prefix_len == 32 {
                let done = self.handle.address().del(found).execute().await;
                done.map_err(|error| InterceptError::Address {
                    address,
                    why: error.to_string(),
                })?;
                removed = true;
            }
        }
        Ok(removed)
    }

    /// Every IPv4 address of the node.
    pub async fn local(&self) -> Result<Vec<Ipv4Addr>, InterceptError> {
        let local = |message: AddressMessage| {
            message
                .attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(address)) => Some(address),
                    _ => None,
                })
        };
        Ok(self
            .list(None)
            .await?
            .into_iter()
            .filter_map(local)
            .collect())
    }

    async fn list(&self, of: Option<Ipv4Addr>) -> Result<Vec<AddressMessage>, InterceptError> {
        let mut get = self.handle.address().get();
        if let Some(address) = of {
            get = get.set_address_filter(IpAddr::V4(address));
        }
        let failed = |error: rtnetlink::Error| InterceptError::Netlink {
            what: "addresses",
            why: error.to_string(),
        };
        get.execute().try_collect().await.map_err(failed)
    }
}
