package com.linksgate;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Optional;

/** Keeps the token in a file, which is replaced, never rewritten. */
public final class FileCheckpoint implements Checkpoint {
  private final Path path;

  /** A checkpoint in this file. */
  public FileCheckpoint(Path path) {
    this.path = path.toAbsolutePath();
  }

  @Override
  public Optional<String> load() throws IOException {
    String token;
    try {
      token = Files.readString(path).strip();
    } catch (NoSuchFileException e) {
      return Optional.empty();
    }
    if (token.isEmpty()) { // to take it for none would leave notifications out unseen
      throw new IOException("the checkpoint " + path + " is empty; remove it to start anew");
    }
    return Optional.of(token);
  }

  @Override
  public void store(String token) throws IOException {
    Path directory = path.getParent();
    Path beside = Files.createTempFile(directory, "." + path.getFileName() + ".", "");
    try {
      try (FileChannel file = FileChannel.open(beside, StandardOpenOption.WRITE)) {
        file.write(ByteBuffer.wrap((token + "\n").getBytes(StandardCharsets.UTF_8)));
        file.force(true);
      }
      Files.move(beside, path, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    } catch (IOException e) {
      Files.deleteIfExists(beside);
      throw e;
    }
    try (FileChannel opened = FileChannel.open(directory, StandardOpenOption.READ)) {
      opened.force(true);
    } catch (IOException e) { // not every system opens directories
      return;
    }
  }
}
