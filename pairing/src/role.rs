//! What a device may do (PROTOCOL 11).

use std::{fmt, str::FromStr};

use thiserror::Error;

/// The role of a device in the eyes of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Everything, also inviting and removing devices.
    Owner = 1,
    /// Run and control sessions.
    Operator = 2,
    /// Look, do not touch.
    Viewer = 3,
    /// A machine that is controlled, or that controls as a machine.
    Machine = 4,
}

impl Role {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Operator, Self::Viewer, Self::Machine];

    fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Machine => "machine",
        }
    }
}

impl From<Role> for u8 {
    fn from(role: Role) -> Self {
        role as Self
    }
}

impl TryFrom<u8> for Role {
    type Error = ParseRoleError;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Self::ALL.into_iter().find(|role| u8::from(*role) == number).ok_or(ParseRoleError)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or(ParseRoleError)
    }
}

/// Not a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a role is one of owner, operator, viewer and machine")]
pub struct ParseRoleError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_name_lead_back_to_the_role() {
        for role in Role::ALL {
            assert_eq!(Role::try_from(u8::from(role)), Ok(role));
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!((Role::try_from(0), Role::try_from(5)), (Err(ParseRoleError), Err(ParseRoleError)));
        assert_eq!("Owner".parse::<Role>(), Err(ParseRoleError));
    }
}
