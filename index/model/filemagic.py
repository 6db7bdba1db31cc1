"""The table of signatures: which bytes of a head say which type. Data; filetype.py reads and uses it.

A line is: type, then parts `offset:bytes`. Bytes are hexadecimal, or text behind an apostrophe (`_` is a space there).
All parts must be there. A type may have several lines; the line with the longest match wins. Marks before the type:

    ?   weak: counts only where the name says the same
    *   counts only when the head holds a NUL byte, for signatures that text could begin with

Source: the documents of the formats themselves; those whose signature lies behind the first 512 bytes (ISO 9660) are
known by their name alone, as a rule.
"""

SIGNATURES = """
jpeg        0:ffd8ff
png         0:89504e470d0a1a0a
gif         0:'GIF87a
gif         0:'GIF89a
webp        0:'RIFF 8:'WEBP
tiff        0:49492a00
tiff        0:4d4d002a
tiff        0:49492b00
tiff        0:4d4d002b
cr2         0:49492a0010000000 8:'CR
*bmp        0:'BM 6:00000000
ico         0:00000100 5:00 9:00
?cur        0:00000200 5:00 9:00
psd         0:'8BPS
xcf         0:'gimp_xcf_
icns        0:'icns
dds         0:444453207c000000
exr         0:762f3101
hdr         0:'#?RADIANCE
hdr         0:'#?RGBE
qoi         0:'qoif
jxl         0:0000000c4a584c200d0a870a
jxl         0:ff0a
jp2         0:0000000c6a5020200d0a870a
jp2         0:ff4fff51
wmf         0:d7cdc69a
emf         0:01000000 40:'_EMF
raf         0:'FUJIFILMCCD-RAW
*orf        0:'IIRO
*orf        0:'MMOR
rw2         0:49495500
crw         0:'II 6:'HEAPCCDR
djvu        0:'AT&TFORM
fits        0:'SIMPLE__=
?pcx        0:0a 2:01
pnm         0:50360a
pnm         0:50350a
pnm         0:50340a
xpm         0:'/*_XPM_*/
eps         0:'%!PS-Adobe 15:'EPSF
eps         0:c5d0d3c6
heic        4:'ftypheic
heic        4:'ftypheix
heic        4:'ftyphevc
heic        4:'ftyphevx
heif        4:'ftypmif1
heif        4:'ftypmsf1
avif        4:'ftypavif
avif        4:'ftypavis
cr3         4:'ftypcrx
mp4         4:'ftyp
m4a         4:'ftypM4A
m4a         4:'ftypM4B
3gp         4:'ftyp3g
mov         4:'ftypqt
mov         4:'moov
mov         4:'mdat
mov         4:'wide
matroska    0:1a45dfa3
avi         0:'RIFF 8:'AVI_
wav         0:'RIFF 8:'WAVE
wav         0:'RF64 8:'WAVE
sf2         0:'RIFF 8:'sfbk
cdr         0:'RIFF 8:'CDR
asf         0:3026b2758e66cf11a6d900aa0062ce6c
flv         0:464c5601
mpeg        0:000001ba
mpeg        0:000001b3
mpegts      0:47 188:47 376:47
mpegts      4:47 196:47 388:47
ogg         0:'OggS
opus        0:'OggS 28:'OpusHead
oga         0:'OggS 28:01766f72626973
oga         0:'OggS 28:7f464c4143
oga         0:'OggS 28:'Speex___
ogv         0:'OggS 28:807468656f7261
rm          0:'.RMF
swf         0:'FWS 5:00
*swf        0:'CWS
mxf         0:060e2b34020501010d01020101
y4m         0:'YUV4MPEG2_
ivf         0:'DKIF
*mp3        0:'ID3
?mp3        0:fffb
?mp3        0:fffa
?mp3        0:fff3
?mp3        0:fff2
?aac        0:fff1
?aac        0:fff9
flac        0:'fLaC
aiff        0:'FORM 8:'AIFF
aiff        0:'FORM 8:'AIFC
*au         0:'.snd
ape         0:'MAC_ 7:00
wavpack     0:'wvpk
midi        0:'MThd
amr         0:'#!AMR
caf         0:6361666600010000
dsf         0:'DSD_ 5:00
ra          0:2e7261fd
modmusic    0:'Extended_Module:
modmusic    0:'IMPM
modmusic    1080:'M.K.
modmusic    44:'SCRM
?ac3        0:0b77
dts         0:7ffe8001
pdf         0:'%PDF-
postscript  0:'%!PS
ole         0:d0cf11e0a1b11ae1
rtf         0:'{\\rtf
wpd         0:ff575043
dvi         0:f702
chm         0:'ITSF
hlp         0:3f5f0300
zip         0:504b0304
zip         0:504b0506
epub        0:504b0304 30:'mimetypeapplication/epub+zip
odt         0:504b0304 30:'mimetypeapplication/vnd.oasis.opendocument.text
ods         0:504b0304 30:'mimetypeapplication/vnd.oasis.opendocument.spreadsheet
odp         0:504b0304 30:'mimetypeapplication/vnd.oasis.opendocument.presentation
opendocument 0:504b0304 30:'mimetypeapplication/vnd.oasis.opendocument.
kra         0:504b0304 30:'mimetypeapplication/x-krita
ooxml       0:504b0304 30:5b436f6e74656e745f54797065735d2e786d6c
jar         0:504b0304 30:'META-INF/
apk         0:504b0304 30:'AndroidManifest.xml
tar         257:'ustar
gzip        0:1f8b08
bzip2       0:'BZh 4:314159265359
xz          0:fd377a585a00
zstd        0:28b52ffd
lz4         0:04224d18
lzip        0:'LZIP
lzop        0:894c5a4f000d0a1a0a
compress    0:1f9d
?lzma       0:5d0000
7z          0:377abcaf271c
rar         0:526172211a07
cpio        0:'070701
cpio        0:'070702
cpio        0:'070707
cpio        0:c771
ar          0:'!<arch>
deb         0:'!<arch> 8:'debian-binary
?arj        0:60ea
lha         2:'-lh 6:'-
cab         0:4d53434600000000
*xar        0:'xar!
vhdx        0:'vhdxfile
vhd         0:'conectix
vmdk        0:'KDMV
qcow2       0:514649fb
vdi         64:7f10dabe
squashfs    0:'hsqs
squashfs    0:'sqsh
warc        0:'WARC/1.
sqlite      0:53514c69746520666f726d6174203300
access      0:000100005374616e6461726420
*parquet    0:'PAR1
arrow       0:'ARROW1
avro        0:4f626a01
*orc        0:'ORC
hdf5        0:894844460d0a1a0a
netcdf      0:43444601
netcdf      0:43444602
numpy       0:934e554d5059
matdata     0:'MATLAB_5.0_MAT-file
rdata       0:'RDX2
rdata       0:'RDX3
gdbm        0:cf9a5713
bdb         12:61150600
bdb         12:62310500
pcap        0:d4c3b2a1
pcap        0:a1b2c3d4
pcapng      0:0a0d0d0a
mobi        60:'BOOKMOBI
lit         0:'ITOLITLS
ttf         0:0001000000
ttf         0:7472756500
*otf        0:'OTTO
ttc         0:'ttcf
woff        0:'wOFF
woff2       0:'wOF2
type1       0:8001 6:'%!PS
type1       0:'%!PS-AdobeFont
type1       0:'%!FontType1
eot         34:'LP
pcf         0:01666370
psf         0:72b54a86
?psf        0:3604
ply         0:706c790a
glb         0:'glTF
fbx         0:'Kaydara_FBX_Binary
blend       0:'BLENDER
step        0:'ISO-10303-21;
dwg         0:'AC10
vrml        0:'#VRML
mo          0:de120495
mo          0:950412de
terminfo    0:1a01
terminfo    0:1e02
timezone    0:'TZif
plist       0:'bplist00
pgp         0:'-----BEGIN_PGP_MESSAGE
pgpkey      0:'-----BEGIN_PGP_PUBLIC
pgpkey      0:'-----BEGIN_PGP_PRIVATE
pgpsig      0:'-----BEGIN_PGP_SIGNATURE
privatekey  0:'-----BEGIN_PRIVATE_KEY
privatekey  0:'-----BEGIN_RSA_PRIVATE_KEY
privatekey  0:'-----BEGIN_EC_PRIVATE_KEY
sshkey      0:'-----BEGIN_OPENSSH_PRIVATE_KEY
sshkey      0:'ssh-rsa_
sshkey      0:'ssh-ed25519_
pem         0:'-----BEGIN_CERTIFICATE
csr         0:'-----BEGIN_CERTIFICATE_REQUEST
age         0:'age-encryption.org/
luks        0:4c554b53babe
kdbx        0:03d9a29a
jks         0:feedfeed
?cert       0:3082
?p12        0:3082
elf         0:7f454c46
elf         0:7f454c46 16:02
object      0:7f454c46 5:01 16:0100
object      0:7f454c46 5:02 16:0001
sharedlib   0:7f454c46 5:01 16:0300
sharedlib   0:7f454c46 5:02 16:0003
core        0:7f454c46 5:01 16:0400
appimage    0:7f454c46 8:414902
*pe         0:'MZ
macho       0:feedface
macho       0:feedfacf
macho       0:cefaedfe
macho       0:cffaedfe
macho       0:cafebabe00000001
macho       0:cafebabe00000002
macho       0:cafebabe00000003
wasm        0:0061736d
javaclass   0:cafebabe 6:00
?pyc        2:0d0a
luac        0:1b4c7561
dex         0:6465780a
elc         0:3b454c43
llvmbc      0:4243c0de
beam        0:'FOR1 8:'BEAM
gir         0:'GOBJ
dtb         0:d00dfeed
magicdb     0:1c041ef1
hprof       0:'JAVA_PROFILE
torrent     0:'d8:announce
gresource   0:'GVariant
journal     0:'LPKSHHRH
gitpack     0:5041434b00
gitindex    0:ff744f63
swapfile    0:'b0VIM
*rdb        0:'REDIS0
nes         0:4e45531a
?pickle     0:8002
?pickle     0:8003
?pickle     0:8004
?pickle     0:8005
pst         0:2142444e
lnk         0:4c00000001140200
rpm         0:edabeedb
crx         0:'Cr24
gguf        0:'GGUF
tflite      4:'TFL3
onenote     0:e4525c7b8cd8a74d
memory      0:'SDMEMORY
plain       0:efbbbf
plain       0:fffe
plain       0:feff
"""

#: Where text has no fixed place: how a head begins, blanks before it and letter case aside.
BEGINNINGS = """
html        <!doctype html
html        <html
html        <head
svg         <svg
xml         <?xml
php         <?php
ical        begin:vcalendar
vcard       begin:vcard
diff        diff --git
diff        --- a/
mbox        from -
eml         return-path:
eml         received:
eml         delivered-to:
webvtt      webvtt
m3u         #extm3u
xbm         #define
postscript  %!ps
desktop     [desktop entry]
gcode       ;flavor:
json        {"
json        [{"
yaml        ---
yaml        %yaml
"""

#: Interpreters of `#!` lines, without their versions.
INTERPRETERS = """
shell       sh bash dash zsh ksh ash fish busybox
python      python pypy
perl        perl
ruby        ruby
javascript  node nodejs deno bun
php         php
lua         lua luajit
tcl         tclsh wish expect
awk         awk gawk mawk nawk
sed         sed
makefile    make
r           rscript
"""
