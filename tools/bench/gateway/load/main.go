// Command load is both ends of the gateway's benchmark: the model provider that is asked, and the clients that ask.
//
// Both speak just enough HTTP/1.1 by hand, because the ends of a measurement must cost far less than what is measured.
//
//	load mock HOST:PORT     serve (see mock.go)
//	load ask < SPEC.json    ask, and print what was seen as JSON (see ask.go)
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "mock":
		err = serve(os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "ask":
		err = ask(os.Stdin, os.Stdout)
	default:
		err = errors.New("usage: load mock HOST:PORT | load ask < SPEC.json")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// head is what is needed of the head of a request or an answer.
type head struct {
	first   []byte
	length  int // -1: not said
	chunked bool
	stream  bool // the body is a stream of events
}

// readHead reads lines up to the empty one.
func readHead(in *bufio.Reader, found *head) error {
	found.length, found.chunked, found.stream = -1, false, false
	first, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	found.first = append(found.first[:0], bytes.TrimSpace(first)...)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			return nil
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			return fmt.Errorf("not a header: %q", line)
		}
		value := bytes.TrimSpace(line[colon+1:])
		switch name := line[:colon]; {
		case bytes.EqualFold(name, []byte("content-length")):
			if found.length, err = strconv.Atoi(string(value)); err != nil || found.length < 0 {
				return fmt.Errorf("not a length: %q", value)
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			found.chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("content-type")):
			found.stream = bytes.HasPrefix(value, []byte("text/event-stream"))
		}
	}
}

// body reads a body piece by piece, whatever its framing; the last piece is nil.
type body struct {
	in      *bufio.Reader
	head    *head
	left    int
	started bool
	ended   bool
	piece   []byte
}

func (b *body) next() ([]byte, error) {
	if b.ended {
		return nil, nil
	}
	if !b.head.chunked {
		if b.head.length < 0 {
			return nil, errors.New("a body without a length")
		}
		b.ended = true
		return b.take(b.head.length)
	}
	if b.started {
		if _, err := b.in.Discard(2); err != nil { // the line end after a chunk
			return nil, err
		}
	}
	b.started = true
	line, err := b.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if at := bytes.IndexByte(line, ';'); at >= 0 {
		line = line[:at]
	}
	size, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 31)
	if err != nil {
		return nil, fmt.Errorf("not a chunk's length: %q", line)
	}
	if size == 0 {
		b.ended = true
		_, err := b.in.ReadSlice('\n')
		return nil, err
	}
	return b.take(int(size))
}

func (b *body) take(size int) ([]byte, error) {
	if cap(b.piece) < size {
		b.piece = make([]byte, size*2)
	}
	b.piece = b.piece[:size]
	_, err := io.ReadFull(b.in, b.piece)
	return b.piece, err
}
