// Bytes from a source to a target by one method, as a Go program would do it: transfers METHOD FROM TO SOURCE OFFSET BYTES FOLDER.
// Says how many bytes arrived and their Adler-32; which system calls carried them is for strace to see.
package main

import (
	"bufio"
	"fmt"
	"hash/adler32"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

var (
	folder        string
	offset, bytes int64
)

type arrival struct {
	bytes int64
	sum   uint32
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// listen gives both ends of a connection.
func listen(network string) (near, far net.Conn) {
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(folder, "socket-"+strconv.Itoa(os.Getpid()))
	}
	listener := must(net.Listen(network, address))
	defer listener.Close()
	near = must(net.Dial(network, listener.Addr().String()))
	return near, must(listener.Accept())
}

// drain reads to the end and says what came.
func drain(from io.Reader, done chan<- arrival) {
	sum := adler32.New()
	// no *os.File and no connection: what it is read by is not what is looked at
	bytes := must(io.Copy(struct{ io.Writer }{sum}, struct{ io.Reader }{from}))
	done <- arrival{bytes, sum.Sum32()}
}

// source is where bytes come from; a connection or a pipe is fed by another goroutine.
func source(kind, path string) io.Reader {
	if kind == "file" {
		file := must(os.Open(path))
		must(file.Seek(offset, io.SeekStart))
		return file
	}
	content := must(os.ReadFile(path))[offset : offset+bytes]
	var near io.Reader
	var far io.WriteCloser
	if kind == "pipe" {
		reading, writing, err := os.Pipe()
		check(err)
		near, far = reading, writing
	} else {
		near, far = listen(kind)
	}
	go func() {
		must(far.Write(content))
		check(far.Close())
	}()
	return near
}

// target is where bytes go, and who says what arrived once that is closed.
func target(kind string) (io.WriteCloser, chan arrival) {
	done := make(chan arrival, 1)
	switch kind {
	case "tcp", "unix":
		near, far := listen(kind)
		go drain(far, done)
		return near, done
	case "pipe":
		reading, writing, err := os.Pipe()
		check(err)
		go drain(reading, done)
		return writing, done
	case "file", "append":
		flags := os.O_CREATE | os.O_WRONLY
		if kind == "append" {
			flags |= os.O_APPEND
		}
		return must(os.OpenFile(filepath.Join(folder, "target"), flags, 0o600)), nil
	}
	check(fmt.Errorf("no such target: %s", kind))
	return nil, nil
}

func transfer(method string, to io.Writer, from io.Reader) (int64, error) {
	switch method {
	case "copy":
		return io.Copy(to, from)
	case "copy_n":
		return io.CopyN(to, from, bytes)
	case "copy_buffer":
		return io.CopyBuffer(to, from, make([]byte, 64<<10))
	case "limited":
		return io.Copy(to, io.LimitReader(from, bytes))
	case "limited_twice":
		return io.Copy(to, io.LimitReader(io.LimitReader(from, bytes), bytes))
	case "buffered":
		return io.Copy(to, bufio.NewReader(from))
	case "section": // ReaderAt, as http.ServeContent is often given
		return io.Copy(to, io.NewSectionReader(from.(io.ReaderAt), offset, bytes))
	case "wrapped_reader":
		return io.Copy(to, struct{ io.Reader }{from})
	case "wrapped_writer":
		return io.Copy(struct{ io.Writer }{to}, from)
	case "buffers":
		half := must(io.ReadAll(io.LimitReader(from, bytes/2)))
		rest := must(io.ReadAll(io.LimitReader(from, bytes-bytes/2)))
		pieces := net.Buffers{half, rest}
		return pieces.WriteTo(to)
	}
	return 0, fmt.Errorf("no such method: %s", method)
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "spin" {
		spin()
		return
	}
	method, from, to, path := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	offset, bytes, folder = must(strconv.ParseInt(os.Args[5], 10, 64)), must(strconv.ParseInt(os.Args[6], 10, 64)), os.Args[7]
	reader := source(from, path)
	writer, done := target(to)
	must(transfer(method, writer, reader))
	check(writer.Close())
	if done == nil {
		done = make(chan arrival, 1)
		drain(must(os.Open(filepath.Join(folder, "target"))), done)
	}
	got := <-done
	fmt.Println("arrived", got.bytes, got.sum)
}

// spin has one goroutine that never yields while another wants its processor: GOMAXPROCS=1 makes it the only one.
func spin() {
	until := time.Now().Add(400 * time.Millisecond)
	turns := make(chan int, 1)
	go func() {
		turns <- 1
	}()
	count := 0
	for time.Now().Before(until) {
		for inner := 0; inner < 1000000; inner++ {
			count += inner & 1
		}
	}
	fmt.Println("arrived", <-turns, count&1)
}
