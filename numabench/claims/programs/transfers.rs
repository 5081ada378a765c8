// Bytes from a source to a target by one method, as a Rust program would do it: transfers METHOD FROM TO SOURCE OFFSET BYTES FOLDER.
// Says how many bytes arrived and their Adler-32; which system calls carried them is for strace to see.
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

struct Wrapped<T>(T);

impl<T: Read> Read for Wrapped<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl<T: Write> Write for Wrapped<T> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.write(from)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn tcp() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    Ok((near, listener.accept()?.0))
}

fn drain(mut from: impl Read) -> io::Result<String> {
    let (mut bytes, mut a, mut b) = (0u64, 1u32, 0u32);
    let mut piece = vec![0u8; 1 << 16];
    loop {
        let count = from.read(&mut piece)?;
        if count == 0 {
            return Ok(format!("arrived {} {}", bytes, b << 16 | a));
        }
        bytes += count as u64;
        for byte in &piece[..count] {
            a = (a + *byte as u32) % 65521;
            b = (b + a) % 65521;
        }
    }
}

fn transfer(method: &str, mut file: File, bytes: u64, mut to: impl Write + CopyTo) -> io::Result<()> {
    match method {
        "copy" => to.copy_from(file)?,
        "taken" => to.copy_from_taken(file.take(bytes))?,
        "buffered" => to.copy_from_buffered(BufReader::new(file))?,
        "wrapped_reader" => io::copy(&mut Wrapped(file), &mut to)?,
        "wrapped_writer" => io::copy(&mut file, &mut Wrapped(to))?,
        _ => panic!("no such method: {}", method),
    };
    Ok(())
}

// io::copy is specialised by the types that it is called with: these keep them.
trait CopyTo {
    fn copy_from(&mut self, file: File) -> io::Result<u64>;
    fn copy_from_taken(&mut self, file: io::Take<File>) -> io::Result<u64>;
    fn copy_from_buffered(&mut self, file: BufReader<File>) -> io::Result<u64>;
}

macro_rules! copies {
    ($($kind:ty),*) => {$(
        impl CopyTo for $kind {
            fn copy_from(&mut self, mut file: File) -> io::Result<u64> {
                io::copy(&mut file, self)
            }
            fn copy_from_taken(&mut self, mut file: io::Take<File>) -> io::Result<u64> {
                io::copy(&mut file, self)
            }
            fn copy_from_buffered(&mut self, mut file: BufReader<File>) -> io::Result<u64> {
                io::copy(&mut file, self)
            }
        }
    )*};
}

copies!(TcpStream, UnixStream, File);

fn main() -> io::Result<()> {
    let given: Vec<String> = std::env::args().collect();
    let (method, from, to, source) = (&given[1], &given[2], &given[3], &given[4]);
    let (offset, bytes): (u64, u64) = (given[5].parse().unwrap(), given[6].parse().unwrap());
    let target = format!("{}/target", given[7]);
    let mut file = File::open(source)?;
    file.seek(SeekFrom::Start(offset))?;
    let arrived = match (from.as_str(), to.as_str()) {
        ("file", "tcp") => {
            let (near, far) = tcp()?;
            let reader = thread::spawn(move || drain(far));
            transfer(method, file, bytes, near)?;
            reader.join().unwrap()?
        }
        ("file", "unix") => {
            let (near, far) = UnixStream::pair()?;
            let reader = thread::spawn(move || drain(far));
            transfer(method, file, bytes, near)?;
            reader.join().unwrap()?
        }
        ("file", "file") => {
            transfer(method, file, bytes, File::create(&target)?)?;
            drain(File::open(&target)?)?
        }
        ("file", "append") => {
            transfer(method, file, bytes, OpenOptions::new().append(true).create(true).open(&target)?)?;
            drain(File::open(&target)?)?
        }
        ("unix", "tcp") => {
            let (mut source_near, mut source_far) = UnixStream::pair()?;
            let mut content = vec![0u8; bytes as usize];
            file.read_exact(&mut content)?;
            thread::spawn(move || {
                source_far.write_all(&content).unwrap();
                source_far.shutdown(Shutdown::Both).unwrap();
            });
            let (mut near, far) = tcp()?;
            let reader = thread::spawn(move || drain(far));
            io::copy(&mut source_near, &mut near)?;
            drop(near);
            reader.join().unwrap()?
        }
        _ => panic!("no such transfer: {} to {}", from, to),
    };
    println!("{}", arrived);
    Ok(())
}
