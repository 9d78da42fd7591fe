//! What of a picture travels in the message that carries it: its size in pixels, and a small JPEG.
//!
//! Only own files are looked at. What is no picture that can be read, or is absurdly large, is sent as any other file.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder as _, ImageReader, Limits};

use crate::proto::history::Picture;
use crate::proto::history::file::THUMBNAIL_BYTES_MAX;

/// The largest file that is looked at, in bytes.
pub(crate) const LOOKED_AT_BYTES_MAX: u64 = 64 << 20;
/// The longest side of the small picture, in pixels; halved until it fits.
const SIDE_MAX: u32 = 320;
const SIDE_MIN: u32 = 40;
const QUALITY: u8 = 60;
const PIXELS_MAX: u32 = 20_000;
const MEMORY_BYTES_MAX: u64 = 512 << 20;

/// Describes a picture; `None` where these bytes are none. Takes a while: not for a task that others wait for.
pub(crate) fn describe(bytes: &[u8]) -> Option<Picture> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(PIXELS_MAX);
    limits.max_image_height = Some(PIXELS_MAX);
    limits.max_alloc = Some(MEMORY_BYTES_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().ok()?;
    let turned = decoder.orientation().ok()?;
    let mut picture = DynamicImage::from_decoder(decoder).ok()?;
    picture.apply_orientation(turned);
    Some(Picture {
        width: picture.width(),
        height: picture.height(),
        thumbnail: thumbnail(&picture).unwrap_or_default(),
    })
}

fn thumbnail(picture: &DynamicImage) -> Option<Vec<u8>> {
    let mut side = SIDE_MAX;
    while side >= SIDE_MIN {
        let small = picture.thumbnail(side, side).to_rgb8();
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
            .encode_image(&small)
            .ok()?;
        if jpeg.len() <= THUMBNAIL_BYTES_MAX {
            return Some(jpeg);
        }
        side /= 2;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_described_and_anything_else_is_not() {
        // Noise does not compress: the small picture has to become smaller.
        let noise = image::RgbImage::from_fn(900, 300, |x, y| {
            let n = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503_601)).wrapping_mul(2_246_822_519);
            image::Rgb([(n >> 8) as u8, (n >> 16) as u8, (n >> 24) as u8])
        });
        let mut png = Vec::new();
        let written = DynamicImage::ImageRgb8(noise).write_to(&mut Cursor::new(&mut png), image::ImageFormat::Png);
        written.unwrap();
        let picture = describe(&png).unwrap();
        assert_eq!((picture.width, picture.height), (900, 300));
        assert!(!picture.thumbnail.is_empty() && picture.thumbnail.len() <= THUMBNAIL_BYTES_MAX);
        assert!(describe(b"no picture").is_none());
        assert!(describe(&png[..png.len() / 2]).is_none());
    }
}
