//! Numbered names: the enums whose numbers go over the wire and whose names
//! people read in policies, on the command line and in JSON.

/// Declares an enum with a fixed number and a fixed name for each variant,
/// and the conversions between the three. Numbers are never reused.
macro_rules! codes {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $number:literal, $text:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        $vis enum $name { $($(#[$vmeta])* $variant = $number,)+ }

        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The number that goes over the wire.
            pub const fn number(self) -> u16 { self as u16 }

            /// The variant of a number, or `None` for a number not assigned.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some($name::$variant),)+ _ => None }
            }

            /// The name used in policies, JSON, logs and on the command line.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.name())
            }
        }

        impl core::str::FromStr for $name {
            type Err = $crate::cbor::UnknownName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text { $($text => Ok($name::$variant),)+ _ => Err($crate::cbor::UnknownName) }
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(&self, e: &mut minicbor::Encoder<W>, _: &mut C)
                -> Result<(), minicbor::encode::Error<W::Error>> {
                e.u16(self.number())?;
                Ok(())
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                let at = d.position();
                let number = d.u16()?;
                Self::from_number(number).ok_or_else(|| {
                    minicbor::decode::Error::message(concat!("unknown number for ", stringify!($name))).at(at)
                })
            }
        }
    };
}
pub(crate) use codes;
