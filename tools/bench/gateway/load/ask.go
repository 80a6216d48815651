package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// spec says whom to ask, how often and how many at once. One of seconds and requests (per connection) ends it.
type spec struct {
	Address     string            `json:"address"`
	Path        string            `json:"path"`
	Headers     map[string]string `json:"headers"`
	Body        string            `json:"body"`
	Connections int               `json:"connections"`
	Seconds     float64           `json:"seconds"`
	Requests    int               `json:"requests"`
	Dump        string            `json:"dump"` // file for the data of every event, one line each; streams end with an empty line
}

// report is what was seen. Times are in nanoseconds.
type report struct {
	Requests int      `json:"requests"`
	Failures int      `json:"failures"`
	Failure  string   `json:"failure"`
	Elapsed  int64    `json:"elapsed"`
	Took     []int64  `json:"took"`   // of each request, to its last byte
	Events   int      `json:"events"` // numbered ones
	Delays   []int64  `json:"delays"` // from the provider's write to the client's read, of each numbered event
	Reads    int      `json:"reads"`  // of the socket, during streams
	lines    [][]byte // what is dumped
}

const timeout = 60 * time.Second

// counted counts the reads of a connection.
type counted struct {
	net.Conn
	reads int
}

func (c *counted) Read(into []byte) (int, error) {
	c.reads++
	return c.Conn.Read(into)
}

func ask(from io.Reader, to io.Writer) error {
	var wanted spec
	if err := json.NewDecoder(from).Decode(&wanted); err != nil {
		return err
	}
	request := encode(&wanted)
	seen := make([]report, wanted.Connections)
	started := time.Now()
	var until time.Time
	if wanted.Seconds > 0 {
		until = started.Add(time.Duration(wanted.Seconds * float64(time.Second)))
	}
	var all sync.WaitGroup
	for number := range seen {
		all.Add(1)
		go func(mine *report) {
			defer all.Done()
			if err := client(&wanted, request, until, mine); err != nil {
				mine.Failures++
				mine.Failure = err.Error()
			}
		}(&seen[number])
	}
	all.Wait()
	total := report{Elapsed: time.Since(started).Nanoseconds()}
	for number := range seen {
		total.add(&seen[number])
	}
	if wanted.Dump != "" {
		if err := os.WriteFile(wanted.Dump, bytes.Join(total.lines, []byte("\n")), 0o600); err != nil {
			return err
		}
	}
	return json.NewEncoder(to).Encode(&total)
}

func (r *report) add(other *report) {
	r.Requests += other.Requests
	r.Failures += other.Failures
	if other.Failure != "" {
		r.Failure = other.Failure
	}
	r.Took = append(r.Took, other.Took...)
	r.Events += other.Events
	r.Delays = append(r.Delays, other.Delays...)
	r.Reads += other.Reads
	r.lines = append(r.lines, other.lines...)
}

func encode(wanted *spec) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n", wanted.Path, wanted.Address)
	for name, value := range wanted.Headers {
		fmt.Fprintf(&out, "%s: %s\r\n", name, value)
	}
	fmt.Fprintf(&out, "Content-Length: %d\r\n\r\n%s", len(wanted.Body), wanted.Body)
	return out.Bytes()
}

// client asks on one connection, one request after the other; a failure ends it.
func client(wanted *spec, request []byte, until time.Time, mine *report) error {
	raw, err := net.DialTimeout("tcp", wanted.Address, timeout)
	if err != nil {
		return err
	}
	defer raw.Close()
	connection := &counted{Conn: raw}
	in := bufio.NewReaderSize(connection, 64<<10)
	dump := wanted.Dump != ""
	for number := 0; (wanted.Requests == 0 || number < wanted.Requests) && (until.IsZero() || time.Now().Before(until)); number++ {
		raw.SetDeadline(time.Now().Add(timeout))
		started := time.Now()
		if _, err := connection.Write(request); err != nil {
			return err
		}
		if err := receive(in, connection, mine, dump); err != nil {
			return err
		}
		mine.Took = append(mine.Took, time.Since(started).Nanoseconds())
		mine.Requests++
	}
	return nil
}

func receive(in *bufio.Reader, connection *counted, mine *report, dump bool) error {
	var said head
	if err := readHead(in, &said); err != nil {
		return err
	}
	pieces := body{in: in, head: &said}
	if !bytes.HasPrefix(said.first, []byte("HTTP/1.1 200")) {
		content, _ := pieces.next()
		return fmt.Errorf("%s: %.300s", said.first, content)
	}
	events := splitter{mine: mine, dump: dump}
	before := connection.reads
	for {
		piece, err := pieces.next()
		if err != nil {
			return err
		}
		if piece == nil {
			break
		}
		if said.stream {
			if err := events.feed(piece); err != nil {
				return err
			}
		}
		if pieces.ended {
			break
		}
	}
	if said.stream {
		mine.Reads += connection.reads - before
		return events.end()
	}
	return nil
}

// splitter cuts a stream into events.
type splitter struct {
	mine *report
	dump bool
	rest []byte
	done bool
}

func (s *splitter) feed(piece []byte) error {
	s.rest = append(s.rest, piece...)
	now := time.Now().UnixNano()
	for {
		end, width := bytes.Index(s.rest, []byte("\n\n")), 2
		if crlf := bytes.Index(s.rest, []byte("\r\n\r\n")); crlf >= 0 && (end < 0 || crlf < end) {
			end, width = crlf, 4
		}
		if end < 0 {
			return nil
		}
		s.event(s.rest[:end], now)
		s.rest = s.rest[end+width:]
	}
}

func (s *splitter) event(event []byte, now int64) {
	data, found := bytes.CutPrefix(event, []byte("data:"))
	if !found {
		return // a comment
	}
	data = bytes.TrimSpace(data)
	if s.dump {
		s.mine.lines = append(s.mine.lines, bytes.ReplaceAll(append([]byte(nil), data...), []byte("\n"), []byte(" ")))
	}
	if bytes.Equal(data, []byte("[DONE]")) {
		s.done = true
		return
	}
	at := bytes.Index(data, []byte(`"w`))
	if at < 0 || len(data) < at+30 || data[at+9] != ' ' {
		return
	}
	sent, err := strconv.ParseInt(string(data[at+10:at+29]), 10, 64)
	if err != nil {
		return
	}
	s.mine.Events++
	s.mine.Delays = append(s.mine.Delays, now-sent)
}

func (s *splitter) end() error {
	if s.dump {
		s.mine.lines = append(s.mine.lines, nil)
	}
	if len(bytes.TrimSpace(s.rest)) > 0 {
		return fmt.Errorf("the stream ended within an event: %.100q", s.rest)
	}
	if !s.done {
		return errors.New("the stream ended without [DONE]")
	}
	return nil
}
